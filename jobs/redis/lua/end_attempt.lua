-- Ends an attempt: notes and counts it, and plans the next one or drops the delivery.
-- lease: the fencing token of this attempt; next_step: of the schedule; retry_in: seconds until the next attempt ('':
-- there is none); outcome, body: what is noted of this attempt
-- Returns 1, or 0 when the lease is another's, who has noted this attempt as lost.
if redis.call('ZSCORE', deliveries, job_id) ~= lease or redis.call('EXISTS', job) == 0 then
  return 0
end
note_attempt(job, attempts, delivery_counts, outcome, body)
redis.call('HSET', job, 'delivery:step', next_step)
redis.call('HDEL', job, 'delivery:began')
if retry_in == '' then
  redis.call('ZREM', deliveries, job_id)
else
  redis.call('ZADD', deliveries, now() + tonumber(retry_in), job_id)
  keep_for_delivery(tonumber(retry_in), job, events, attempts)
end
return 1
