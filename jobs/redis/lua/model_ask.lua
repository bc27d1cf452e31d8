-- May a call to a model be made now? Asked only while it is paused, or before each call when there is a limit.
-- model: the circuit's hash; ttl: of that hash, seconds; token: for a probe; probe_seconds: that a probe may take;
-- per_minute: calls (0: no limit); max_wait: seconds that the caller waits for its turn in place; max_turn_wait: seconds
-- ahead that turns are given to calls sent away
-- Returns {'go', seconds to wait first}, {'probe'} (this call decides whether the pause is over), {'paused'}, or
-- {'limited', seconds to come back in, seconds to spread that over}
probe_seconds, per_minute = tonumber(probe_seconds), tonumber(per_minute)
max_wait, max_turn_wait = tonumber(max_wait), tonumber(max_turn_wait)
local time = now()

local state = redis.call('HMGET', model, 'until', 'probe_until', 'next_call', 'next_turn')
local paused_until, probe_until = state[1], tonumber(state[2] or 0)
if paused_until then
  if tonumber(paused_until) > time or probe_until > time then
    return { 'paused' }
  end
  redis.call('HSET', model, 'probe', token, 'probe_until', time + probe_seconds)
  redis.call('HINCRBY', model, 'total:probes', 1)
  redis.call('EXPIRE', model, ttl)
  return { 'probe' }
end
if per_minute == 0 then
  return { 'go', '0' }
end

-- GCRA without a burst: each call moves the next one's time by the interval. Those sent away queue behind it.
local interval = 60 / per_minute
local mine = math.max(tonumber(state[3] or 0), time)
if mine - time <= max_wait then
  redis.call('HSET', model, 'next_call', mine + interval)
  redis.call('EXPIRE', model, ttl)
  return { 'go', string.format('%.3f', mine - time) }
end
local turn = math.max(tonumber(state[4] or 0), mine)
if turn - time > max_turn_wait then  -- No turn is kept so long for a job that may be gone by then.
  return { 'limited', tostring(max_turn_wait), tostring(max_turn_wait) }
end
redis.call('HSET', model, 'next_turn', turn + interval)
redis.call('EXPIRE', model, ttl)
return { 'limited', string.format('%.3f', turn - time), '0' }
