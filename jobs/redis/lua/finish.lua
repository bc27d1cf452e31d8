-- Ends a job: result or error first, the final event last, the counter with them. With a callback its delivery is due.
-- token: '' ends the job regardless of who holds it (a cancel, the sweep); ttl: seconds; fate: the field of `counts` to raise; share_for:
-- seconds that other jobs may have the result (0: not at all); bodies: of the last events
-- Returns 1, or 0 when the token is stale or the job has ended already.
charge(job, charges)
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
bypass_oom_guard()
if token ~= '' then
  note_service_time(job)
end
local time, keep_for = now(), tonumber(ttl)
if redis.call('HEXISTS', job, 'callback') == 1 then
  keep_for = math.max(keep_for, KEPT_FOR_DELIVERY)
  redis.call('ZADD', deliveries, time, job_id)
end
set_fields(job, fields)
if share_for ~= '0' then
  redis.call('HSET', result, 'result', redis.call('HGET', job, 'result'))
  redis.call('EXPIRE', result, share_for)
end
redis.call('HSET', job, 'status', status, 'stage', 'done', 'progress', 100, 'finished_at', time,
  'expires_at', time + keep_for, 'ended_by', token)
redis.call('HDEL', job, 'draft')
redis.call('HINCRBY', counts, fate, 1)
for _, listing in ipairs({ queued, outbox, leases, deadlines }) do
  redis.call('ZREM', listing, job_id)
end
for i = bodies + 1, bodies + ARGV[bodies] do
  append_and_publish(job_id, events, feed, ARGV[i])
end
redis.call('EXPIRE', job, keep_for)
redis.call('EXPIRE', events, keep_for)
return 1
