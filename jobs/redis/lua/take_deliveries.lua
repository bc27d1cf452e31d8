-- Hands out the deliveries that are due, each under a lease, so that no two workers attempt the same one.
-- limit: deliveries at most; lease: seconds
-- Returns job id, lease, callback; job id, lease, callback; …
local time = now()
local taken = {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '-inf', time, 'LIMIT', 0, limit)) do
  local callback = redis.call('HGET', JOB_PREFIX .. job_id, 'callback')
  if callback then
    redis.call('ZADD', deliveries, time + tonumber(lease), job_id)
    table.insert(taken, job_id)
    table.insert(taken, redis.call('ZSCORE', deliveries, job_id))
    table.insert(taken, callback)
  else  -- The record's TTL ran out.
    redis.call('ZREM', deliveries, job_id)
  end
end
return taken
