-- Puts a running job back in the queue: its worker lets go or retries (token given), or its lease ran out (token '').
-- delay: seconds before it may be claimed; send_in: seconds until its message is sent; counter: a field to raise, or ''
-- Returns the counter's new value (0 without one), or nothing when there is nothing to put back.
charge(job, charges)
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
bypass_oom_guard()
if token ~= '' then
  note_service_time(job)
end
redis.call('HSET', job, 'status', 'queued', 'not_before', now() + tonumber(delay))
set_fields(job, fields)
redis.call('ZREM', leases, job_id)
redis.call('ZADD', queued, queue_score(job), job_id)
redis.call('ZADD', outbox, now() + tonumber(send_in), job_id)
if counter == '' then
  return 0
end
return redis.call('HINCRBY', job, counter, 1)
