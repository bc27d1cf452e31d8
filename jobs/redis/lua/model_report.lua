-- Reports the outcome of calls to a model, and returns the state of its circuit.
-- model: the circuit's hash; models: the names of all models; ttl: of both, seconds; answered, failed: calls; rejected:
-- jobs; outcome: how one of these calls ended ('' nothing to say, 'answered', 'dropped' or an error code); token: of that
-- call if it was a probe, else ''; at_once: 1 if such an error pauses at once; min_pause: seconds; pauses: seconds of the
-- pauses of a streak
-- Returns the cause ('' calls go on), seconds of pause left, seconds of probe left, jobs rejected in the longer of this
-- pause and the one before, if this report began a pause, how many that makes in a row (else 0), and the nanodollars that all
-- models have cost today.
local HALF_WINDOW = 5       -- failures are counted over this half and the one before
local OUTAGE_FAILURES = 5   -- so many of them pause the model if
local OUTAGE_SHARE = 0.5    -- they are at least this share of the calls
local CALM = 30             -- a pause that begins within so many seconds of the last one's end goes on with its streak

answered, failed, rejected = tonumber(answered), tonumber(failed), tonumber(rejected)
at_once, min_pause = at_once == '1', tonumber(min_pause)
local time = now()

local function number(field)
  return tonumber(redis.call('HGET', model, field) or 0)
end

local function count()
  local half = math.floor(time / HALF_WINDOW)
  local since = number('half')
  if half ~= since then
    local is_next = half == since + 1
    redis.call('HSET', model, 'half', half, 'calls', 0, 'failed', 0,
      'calls_before', is_next and number('calls') or 0, 'failed_before', is_next and number('failed') or 0)
  end
  redis.call('HINCRBY', model, 'calls', answered + failed)
  redis.call('HINCRBY', model, 'failed', failed)
  redis.call('HINCRBY', model, 'crowd', rejected)
  redis.call('HINCRBY', model, 'total:refused', rejected)
end

local function is_outage()
  local failures = number('failed') + number('failed_before')
  local calls = number('calls') + number('calls_before')
  return failures >= OUTAGE_FAILURES and failures >= calls * OUTAGE_SHARE
end

local function resume()
  redis.call('HDEL', model, 'until', 'cause', 'half', 'calls', 'failed', 'calls_before', 'failed_before')
  redis.call('HSET', model, 'calm_since', time)
end

local function pause(was_paused)
  local goes_on = was_paused or time - number('calm_since') < CALM
  local streak = goes_on and number('streak') or 0
  local seconds = math.max(min_pause, tonumber(ARGV[pauses + 1 + math.min(streak, ARGV[pauses] - 1)]))
  redis.call('HSET', model, 'cause', outcome, 'until', time + seconds, 'streak', streak + 1,
    'crowd_before', number('crowd'), 'crowd', 0)
  redis.call('HINCRBY', model, 'total:pauses', 1)
  return streak + 1
end

if answered + failed + rejected > 0 then
  count()
end
local began = 0
if outcome ~= '' then
  local paused_until = redis.call('HGET', model, 'until')
  local is_probe = token ~= '' and redis.call('HGET', model, 'probe') == token
  if is_probe then
    redis.call('HDEL', model, 'probe', 'probe_until')
  end
  if outcome == 'answered' then
    if is_probe then
      resume()
    end
  elseif outcome ~= 'dropped' then
    if is_probe or (not paused_until and (at_once or is_outage())) then
      began = pause(paused_until)
    elseif paused_until and at_once then  -- It was on its way when the pause began, and may know better how long.
      redis.call('HSET', model, 'until', math.max(tonumber(paused_until), time + min_pause))
    end
  end
end
if answered + failed + rejected > 0 or outcome ~= '' then
  redis.call('SADD', models, name)
  redis.call('EXPIRE', models, ttl)
  redis.call('EXPIRE', model, ttl)
end
local cause = redis.call('HGET', model, 'cause') or ''
local function left(field)
  return string.format('%.3f', math.max(number(field) - time, 0))
end
return { cause, left('until'), left('probe_until'), math.max(number('crowd'), number('crowd_before')), began,
  redis.call('HGET', usage_today(), 'spent') or '0' }
