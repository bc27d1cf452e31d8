-- Hands out the deliveries that are due, each under a lease, so that no two workers attempt the same one.
-- KEYS: deliveries
-- ARGV: most deliveries, lease in seconds, prefix of job keys
-- Returns job id, lease, callback; job id, lease, callback; …
local time = now()
local taken = {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, ARGV[1])) do
  local callback = redis.call('HGET', ARGV[3] .. job_id, 'callback')
  if callback then
    redis.call('ZADD', KEYS[1], time + tonumber(ARGV[2]), job_id)
    table.insert(taken, job_id)
    table.insert(taken, redis.call('ZSCORE', KEYS[1], job_id))
    table.insert(taken, callback)
  else  -- The record's TTL ran out.
    redis.call('ZREM', KEYS[1], job_id)
  end
end
return taken
