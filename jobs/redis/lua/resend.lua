-- Makes a delivery due now, whatever became of it, with the schedule from its start. Nothing to do while an attempt is
-- under way, or before the job has ended: then it becomes due all the same.
-- Returns 1, or 0 when there is no such job or it has no callback.
local state = redis.call('HMGET', job, 'callback', 'finished_at', 'delivery:began')
if not state[1] then
  return 0
end
local is_under_way = state[3] and tonumber(redis.call('ZSCORE', deliveries, job_id) or 0) > now()
if state[2] and not is_under_way then
  redis.call('HSET', job, 'delivery:step', 0)
  redis.call('ZADD', deliveries, now(), job_id)
  keep_for_delivery(0, job, events, attempts)
end
return 1
