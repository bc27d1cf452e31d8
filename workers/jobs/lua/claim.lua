-- Gives a job to a worker, under a lease and a new fencing token.
-- KEYS: job, queued, leases
-- ARGV: job id, lease in seconds
-- Returns the job as HGETALL does, or nothing when it is unknown, finished or held by another.
local job, queued, leases = KEYS[1], KEYS[2], KEYS[3]
local state = redis.call('HMGET', job, 'status', 'lease_until', 'created_at', 'started_at')
local time = now()
if not (state[1] == 'queued' or (state[1] == 'running' and tonumber(state[2]) < time)) then
  return {}
end
redis.call('HINCRBY', job, 'token', 1)
redis.call('HINCRBY', job, 'attempts', 1)
local lease_until = time + tonumber(ARGV[2])
redis.call('HSET', job, 'status', 'running', 'lease_until', lease_until)
if not state[4] then
  redis.call('HSET', job, 'started_at', time, 'timing:queued', string.format('%.4f', time - tonumber(state[3])))
end
redis.call('ZREM', queued, ARGV[1])
redis.call('ZADD', leases, lease_until, ARGV[1])
return redis.call('HGETALL', job)
