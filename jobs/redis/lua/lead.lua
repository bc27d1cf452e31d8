-- Makes a worker the leader of the sweep, or keeps it so, or has it step down.
-- KEYS: leader
-- ARGV: worker, for how many milliseconds (0: step down)
-- Returns 1 when it leads now.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
although_full()
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
