-- Hands out the jobs whose message is due, and puts each off, so that no two sweeps send the same one. Each time
-- twice as long: a job may just be waiting in a long queue, and a second message does no more than cost time.
-- limit: jobs at most; resend_after: seconds until the first repeat
-- Returns for each its id and its priority ('' when the record has none).
bypass_oom_guard()
local time = now()
local due = {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', time, 'LIMIT', 0, limit)) do
  local job = JOB_PREFIX .. job_id
  local record = redis.call('HMGET', job, 'status', 'priority')
  if record[1] == 'queued' then
    local sends = redis.call('HINCRBY', job, 'sends', 1)
    redis.call('ZADD', outbox, time + tonumber(resend_after) * 2 ^ math.min(sends - 1, 10), job_id)
    table.insert(due, { job_id, record[2] or '' })
  else
    redis.call('ZREM', outbox, job_id)
  end
end
return due
