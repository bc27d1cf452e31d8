-- Begins an attempt at a delivery and renews its lease. An earlier attempt that began and never ended was lost with its
-- worker: it is noted as lost.
-- lease: the fencing token of this attempt; lease_seconds: of the new lease; lost_outcome, lost_body: what is noted of
-- the lost attempt
-- Returns the attempt's number, its step in the schedule and its lease; or nothing when the lease is another's.
if redis.call('ZSCORE', deliveries, job_id) ~= lease or redis.call('EXISTS', job) == 0 then
  return {}
end
if redis.call('HEXISTS', job, 'delivery:began') == 1 then
  note_attempt(job, attempts, delivery_counts, lost_outcome, lost_body)
end
local time = now()
local number = redis.call('HINCRBY', job, 'delivery:number', 1)
redis.call('HSET', job, 'delivery:began', time)
redis.call('ZADD', deliveries, time + tonumber(lease_seconds), job_id)
return { number, tonumber(redis.call('HGET', job, 'delivery:step') or 0), redis.call('ZSCORE', deliveries, job_id) }
