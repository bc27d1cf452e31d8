-- Puts a running job back in the queue: its worker lets go or retries (token given), or its lease ran out (token '').
-- KEYS: job, queued, leases, outbox
-- ARGV: job id, token, seconds before anybody may claim it, seconds until its message is sent, counter to raise or '',
-- then calls to charge, then fields
-- Returns the counter's new value (0 without one), or nothing when there is nothing to put back.
local job, queued, leases, outbox = unpack(KEYS)
local job_id, token, counter = ARGV[1], ARGV[2], ARGV[5]
local fields = charge(job, 6)
if token == '' then
  local state = redis.call('HMGET', job, 'status', 'lease_until')
  if state[1] ~= 'running' then
    redis.call('ZREM', leases, job_id)
    return false
  end
  if tonumber(state[2]) >= now() then
    return false
  end
elseif not holds(job, token) then
  return false
end
although_full()
if token ~= '' then
  note_pace(job)
end
redis.call('HSET', job, 'status', 'queued', 'not_before', now() + tonumber(ARGV[3]))
set_fields(job, fields)
redis.call('ZREM', leases, job_id)
redis.call('ZADD', queued, place(job), job_id)
redis.call('ZADD', outbox, now() + tonumber(ARGV[4]), job_id)
if counter == '' then
  return 0
end
return redis.call('HINCRBY', job, counter, 1)
