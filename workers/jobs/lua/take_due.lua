-- Hands out the jobs whose message is due, and puts each off, so that no two sweeps send the same one. A sweep that
-- dies before it has sent them is made good by the next, after the grace time.
-- KEYS: outbox
-- ARGV: most jobs, grace in seconds
local time = now()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, ARGV[1])
for _, job_id in ipairs(due) do
  redis.call('ZADD', KEYS[1], time + tonumber(ARGV[2]), job_id)
end
return due
