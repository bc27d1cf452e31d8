-- The backlog of waiting jobs and the fleet that serves it.
-- heartbeat_ttl: seconds after its last heartbeat in which a worker counts as live
-- Returns: interactive and bulk jobs that wait, jobs that run, slots of the live workers; then as text, the mean seconds
-- that a job has lately held its slot ('' when unknown) and interactive jobs served a second.
local time = now()
local bulk = redis.call('ZCOUNT', queued, BULK_BEHIND, '+inf')
local slots = 0
for _, beat in ipairs(redis.call('ZRANGEBYSCORE', workers, time - tonumber(heartbeat_ttl), '+inf')) do
  slots = slots + (cjson.decode(beat).concurrency or 0)
end
local pace = redis.call('HMGET', PACE, 'at', 'seconds', 'turns', 'interactive')
local served = tonumber(pace[3]) or 0
local kept = math.exp(math.min(0, (tonumber(pace[1]) or time) - time) / PACE_MEMORY)
return {
  redis.call('ZCARD', queued) - bulk, bulk, redis.call('ZCARD', leases), slots,
  served > 0 and string.format('%.6f', tonumber(pace[2]) / served) or '',
  string.format('%.6f', (tonumber(pace[4]) or 0) * kept / PACE_MEMORY),
}
