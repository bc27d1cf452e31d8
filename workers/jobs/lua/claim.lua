-- Gives a job to a worker, under a lease and a new fencing token. From now on no message needs to be sent for it.
-- KEYS: job, queued, leases, outbox
-- ARGV: job id, lease in seconds
-- Returns the job as HGETALL does, or nothing when it is unknown, finished, held by another or not due for its retry.
local job, queued, leases, outbox = unpack(KEYS)
local state = redis.call('HMGET', job, 'status', 'lease_until', 'created_at', 'started_at', 'not_before')
local time = now()
local is_due = state[1] == 'queued' and tonumber(state[5] or 0) <= time
local is_left = state[1] == 'running' and tonumber(state[2]) < time
if not (is_due or is_left) then
  return {}
end
redis.call('HINCRBY', job, 'token', 1)
redis.call('HINCRBY', job, 'attempts', 1)
redis.call('HDEL', job, 'sends')
local lease_until = time + tonumber(ARGV[2])
redis.call('HSET', job, 'status', 'running', 'lease_until', lease_until, 'claimed_at', time)
if not state[4] then
  redis.call('HSET', job, 'started_at', time, 'timing:queued', string.format('%.4f', time - tonumber(state[3])))
end
redis.call('ZREM', queued, ARGV[1])
redis.call('ZREM', outbox, ARGV[1])
redis.call('ZADD', leases, lease_until, ARGV[1])
return redis.call('HGETALL', job)
