-- Begins an attempt at a delivery and renews its lease. One that began earlier and never ended went with its worker:
-- it is noted as lost.
-- KEYS: job, attempts, deliveries, counts
-- ARGV: job id, lease, seconds of the new lease, the lost attempt's outcome, and what is noted of it
-- Returns the attempt's number, its place in the schedule and its lease; or nothing when the lease is another's.
local job, attempts, deliveries, counts = unpack(KEYS)
if redis.call('ZSCORE', deliveries, ARGV[1]) ~= ARGV[2] or redis.call('EXISTS', job) == 0 then
  return {}
end
if redis.call('HEXISTS', job, 'delivery:began') == 1 then
  note_attempt(job, attempts, counts, ARGV[4], ARGV[5])
end
local time = now()
local number = redis.call('HINCRBY', job, 'delivery:number', 1)
redis.call('HSET', job, 'delivery:began', time)
redis.call('ZADD', deliveries, time + tonumber(ARGV[3]), ARGV[1])
return { number, tonumber(redis.call('HGET', job, 'delivery:step') or 0), redis.call('ZSCORE', deliveries, ARGV[1]) }
