-- Hands out the jobs whose message is due, and puts each off, so that no two sweeps send the same one. Each time
-- twice as long: a job may just be waiting in a long queue, and a second message does no more than cost time.
-- KEYS: outbox
-- ARGV: most jobs, seconds until the first repeat, prefix of job keys
-- Returns for each its id and its priority ('' when the record has none).
although_full()
local time = now()
local due = {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, ARGV[1])) do
  local job = ARGV[3] .. job_id
  local record = redis.call('HMGET', job, 'status', 'priority')
  if record[1] == 'queued' then
    local sends = redis.call('HINCRBY', job, 'sends', 1)
    redis.call('ZADD', KEYS[1], time + tonumber(ARGV[2]) * 2 ^ math.min(sends - 1, 10), job_id)
    table.insert(due, { job_id, record[2] or '' })
  else
    redis.call('ZREM', KEYS[1], job_id)
  end
end
return due
