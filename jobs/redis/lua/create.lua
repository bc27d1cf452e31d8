-- Records a job, its idempotency key, its place in the queue and its first event, all or nothing.
-- KEYS: job, events, queued, outbox, deadlines, idempotency key (the job's own key: no idempotency)
-- ARGV: job id, deadline, ttl, request fingerprint, seconds until the sweep sends it, event body, fields, prefix of
-- job keys behind them
-- Returns: job id that holds, 1 if it is new, 1 if no worker has taken it; or 'mismatch'.
local job, events, queued, outbox, deadlines, idempotency = unpack(KEYS)
local job_id, deadline, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if idempotency ~= job then
  local earlier = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  local status = earlier[1] and redis.call('HGET', ARGV[#ARGV] .. earlier[1], 'status')
  if status then  -- A key may outlive its job's record; then it is free again.
    if earlier[2] ~= ARGV[4] then
      return { 'mismatch' }
    end
    return { earlier[1], 0, status == 'queued' and 1 or 0 }
  end
  redis.call('HSET', idempotency, 'job', job_id, 'fingerprint', ARGV[4])
  redis.call('EXPIRE', idempotency, ttl)
end

local time = now()
set_fields(job, 7)
redis.call('HSET', job, 'status', 'queued', 'stage', 'queued', 'progress', 0, 'attempts', 0, 'token', 0,
  'created_at', time, 'deadline_at', time + deadline, 'expires_at', time + ttl)
redis.call('ZADD', queued, place(job), job_id)
redis.call('ZADD', outbox, time + tonumber(ARGV[5]), job_id)
redis.call('ZADD', deadlines, time + deadline, job_id)
enter(events, ARGV[6])  -- Nobody can follow the job yet, so the feed need not tell of it.
redis.call('EXPIRE', job, ttl)
redis.call('EXPIRE', events, ttl)
return { job_id, 1, 1 }
