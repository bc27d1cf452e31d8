-- Lets a caller through if it keeps to its rate (GCRA: the key holds when its allowance is whole again).
-- interval: seconds between two requests in the long run; burst: requests at once at most
-- Returns 1 or 0, how many more may follow at once, microseconds until the next may, and until the allowance is whole.
interval, burst = tonumber(interval), tonumber(burst)
local time = now()
local whole_at = math.max(tonumber(redis.call('GET', allowance) or 0), time)
local next_whole_at = whole_at + interval
local early = next_whole_at - burst * interval - time
if early > 1e-6 then
  return { 0, 0, math.ceil(early * 1e6), math.ceil((whole_at - time) * 1e6) }
end
redis.call('SET', allowance, string.format('%.6f', next_whole_at), 'PX', math.ceil((next_whole_at - time) * 1000))
return { 1, math.floor(-early / interval + 1e-6), 0, math.ceil((next_whole_at - time) * 1e6) }
