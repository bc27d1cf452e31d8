-- Gives a job to a worker, under a lease and a new fencing token. From now on no message needs to be sent for it.
-- lease: seconds; claimant: a name for this claim, under which it may be asked for again; version: of the pipeline that
-- is to run the job ('' keeps the one it has)
-- Returns the job as HGETALL does, or nothing when it is unknown, finished, held by another or not due for its retry.
local state = redis.call('HMGET', job, 'status', 'created_at', 'started_at', 'not_before', 'claimant')
local time = now()
if state[1] == 'running' and state[5] == claimant then  -- The answer to its first question was lost.
  return redis.call('HGETALL', job)
end
if state[1] ~= 'queued' or tonumber(state[4] or 0) > time then
  return {}
end
bypass_oom_guard()
redis.call('HINCRBY', job, 'token', 1)
redis.call('HINCRBY', job, 'attempts', 1)
redis.call('HDEL', job, 'sends', 'written', 'draft')
local lease_until = time + tonumber(lease)
redis.call('HSET', job, 'status', 'running', 'lease_until', lease_until, 'claimed_at', time, 'claimant', claimant)
if version ~= '' then
  redis.call('HSET', job, 'pipeline_version', version)
end
if not state[3] then
  redis.call('HSET', job, 'started_at', time, 'timing:queued', string.format('%.4f', time - tonumber(state[2])))
end
redis.call('ZREM', queued, job_id)
redis.call('ZREM', outbox, job_id)
redis.call('ZADD', leases, lease_until, job_id)
return redis.call('HGETALL', job)
