-- Ends a job: result or error first, the final event last, the counter with them. With a callback its delivery is due.
-- KEYS: job, events, feed, counts, deliveries, the result for other jobs, then the sorted sets that may list the job
-- ARGV: job id, token ('' = whoever holds it: a cancel), status, ttl, counter, how long other jobs may have the result
-- (0: not at all), calls to charge, fields, then event bodies
-- Returns 1, or 0 when the token is stale or the job has ended already.
local job, events, feed = KEYS[1], KEYS[2], KEYS[3]
local job_id, token, status, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local fields = charge(job, 7)
if token == '' then
  local current = redis.call('HGET', job, 'status')
  if current ~= 'queued' and current ~= 'running' then
    return 0
  end
elseif not holds(job, token) then
  -- Perhaps by this very write, whose answer was lost.
  local ended = redis.call('HMGET', job, 'ended_by', 'status')
  return (ended[1] == token and ended[2] == status) and 1 or 0
end
although_full()
if token ~= '' then
  note_pace(job)
end
local time = now()
if redis.call('HEXISTS', job, 'callback') == 1 then
  ttl = math.max(ttl, KEPT_FOR_DELIVERY)
  redis.call('ZADD', KEYS[5], time, job_id)
end
local first_event = set_fields(job, fields)
if ARGV[6] ~= '0' then
  redis.call('HSET', KEYS[6], 'result', redis.call('HGET', job, 'result'))
  redis.call('EXPIRE', KEYS[6], ARGV[6])
end
redis.call('HSET', job, 'status', status, 'stage', 'done', 'progress', 100, 'finished_at', time, 'expires_at', time + ttl,
  'ended_by', token)
redis.call('HDEL', job, 'draft')
redis.call('HINCRBY', KEYS[4], ARGV[5], 1)
for i = 7, #KEYS do
  redis.call('ZREM', KEYS[i], job_id)
end
for i = first_event, #ARGV do
  append(job_id, events, feed, ARGV[i])
end
redis.call('EXPIRE', job, ttl)
redis.call('EXPIRE', events, ttl)
return 1
