-- Finds the result of earlier work, or reserves the work for a job.
-- reserve_for: seconds that a reservation lasts
-- Returns {'made', result}, {'held', job id} while another job is at it, or {'yours'}.
local made = redis.call('HGET', result, 'result')
if made then
  return { 'made', made }
end
local holder = redis.call('HGET', result, 'holder')
if holder and holder ~= job_id and redis.call('HGET', JOB_PREFIX .. holder, 'status') == 'running' then
  return { 'held', holder }
end
bypass_oom_guard()
redis.call('HSET', result, 'holder', job_id)
redis.call('EXPIRE', result, reserve_for)
return { 'yours' }
