-- Ends an attempt: notes and counts it, and plans the next one or drops the delivery.
-- KEYS: job, attempts, deliveries, counts, events
-- ARGV: job id, lease, place in the schedule of the next attempt, seconds until then ('': there is none), outcome, and
-- what is noted of the attempt
-- Returns 1, or 0 when the lease is another's, who has noted this attempt as lost.
local job, attempts, deliveries, counts, events = unpack(KEYS)
if redis.call('ZSCORE', deliveries, ARGV[1]) ~= ARGV[2] or redis.call('EXISTS', job) == 0 then
  return 0
end
note_attempt(job, attempts, counts, ARGV[5], ARGV[6])
redis.call('HSET', job, 'delivery:step', ARGV[3])
redis.call('HDEL', job, 'delivery:began')
if ARGV[4] == '' then
  redis.call('ZREM', deliveries, ARGV[1])
else
  redis.call('ZADD', deliveries, now() + tonumber(ARGV[4]), ARGV[1])
  keep_for_delivery(tonumber(ARGV[4]), job, events, attempts)
end
return 1
