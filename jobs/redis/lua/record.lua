-- Records finished stages and their checkpoints, and renews the lease. Also the bare renewal: no fields, no events.
-- KEYS: job, events, feed, leases
-- ARGV: job id, token, lease in seconds, number of this write within the claim (0: none), calls to charge, fields, then
-- event bodies
-- Returns 1, or 0 when the token is stale: the job was cancelled, taken over or has ended.
local job, events, feed, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local fields = charge(job, 5)
if not holds(job, ARGV[2]) then
  return 0
end
although_full()
local lease_until = now() + tonumber(ARGV[3])
redis.call('HSET', job, 'lease_until', lease_until)
redis.call('ZADD', leases, lease_until, ARGV[1])
if ARGV[4] ~= '0' then
  if redis.call('HGET', job, 'written') == ARGV[4] then  -- The answer to its first try was lost.
    return 1
  end
  redis.call('HSET', job, 'written', ARGV[4])
end
for i = set_fields(job, fields), #ARGV do
  append(ARGV[1], events, feed, ARGV[i])
end
return 1
