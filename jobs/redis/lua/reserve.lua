-- Finds the result of earlier work, or reserves the work for a job.
-- KEYS: the result, the prefix of job keys
-- ARGV: job id, how long a reservation lasts
-- Returns {'made', result}, {'held', job id} while another job is at it, or {'yours'}.
local result = redis.call('HGET', KEYS[1], 'result')
if result then
  return { 'made', result }
end
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] and redis.call('HGET', KEYS[2] .. holder, 'status') == 'running' then
  return { 'held', holder }
end
although_full()
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return { 'yours' }
