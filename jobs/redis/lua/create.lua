-- Records a job, its idempotency key, its entry in the queue and its first event, all or nothing.
-- idempotency: the job's own key when there is no idempotency key; deadline, ttl, send_in: seconds from now, the last
-- until the sweep sends the job's message; body: of the first event
-- Returns: job id that holds, 1 if it is new, 1 if no worker has taken it; or 'mismatch'.
if idempotency ~= job then
  local earlier = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  local status = earlier[1] and redis.call('HGET', JOB_PREFIX .. earlier[1], 'status')
  if status then  -- A key may outlive its job's record; then it is free again.
    if earlier[2] ~= fingerprint then
      return { 'mismatch' }
    end
    return { earlier[1], 0, status == 'queued' and 1 or 0 }
  end
  redis.call('HSET', idempotency, 'job', job_id, 'fingerprint', fingerprint)
  redis.call('EXPIRE', idempotency, ttl)
end

local time = now()
set_fields(job, fields)
redis.call('HSET', job, 'status', 'queued', 'stage', 'queued', 'progress', 0, 'attempts', 0, 'token', 0,
  'created_at', time, 'deadline_at', time + tonumber(deadline), 'expires_at', time + tonumber(ttl))
redis.call('ZADD', queued, queue_score(job), job_id)
redis.call('ZADD', outbox, time + tonumber(send_in), job_id)
redis.call('ZADD', deadlines, time + tonumber(deadline), job_id)
append_event(events, body)  -- The job cannot have followers yet, so the feed does not need it.
redis.call('EXPIRE', job, ttl)
redis.call('EXPIRE', events, ttl)
return { job_id, 1, 1 }
