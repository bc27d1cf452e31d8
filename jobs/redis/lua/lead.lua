-- Makes a worker the leader of the sweep, or keeps it so, or has it step down.
-- ttl_ms: how long it leads unless it renews (0: step down)
-- Returns 1 when it leads now.
local current = redis.call('GET', leader)
if current and current ~= worker then
  return 0
end
if ttl_ms == '0' then
  redis.call('DEL', leader)
  return 0
end
bypass_oom_guard()
redis.call('SET', leader, worker, 'PX', ttl_ms)
return 1
