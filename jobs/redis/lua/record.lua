-- Records finished stages and their checkpoints, and renews the lease. Also the bare renewal: no fields, no events.
-- lease: seconds; write: number of this write within the claim (0: none); bodies: of the events
-- Returns 1, or 0 when the token is stale: the job was cancelled, taken over or has ended.
charge(job, charges)
if not holds(job, token) then
  return 0
end
bypass_oom_guard()
local lease_until = now() + tonumber(lease)
redis.call('HSET', job, 'lease_until', lease_until)
redis.call('ZADD', leases, lease_until, job_id)
if write ~= '0' then
  if redis.call('HGET', job, 'written') == write then  -- The answer to its first try was lost.
    return 1
  end
  redis.call('HSET', job, 'written', write)
end
set_fields(job, fields)
for i = bodies + 1, bodies + ARGV[bodies] do
  append_and_publish(job_id, events, feed, ARGV[i])
end
return 1
