-- Hands in what became of calls to a model, and tells whether more may be made.
-- KEYS: the model's state, the names of all models
-- ARGV: name, ttl, calls answered, calls failed, jobs refused, how one call of these ended ('' nothing to say,
-- 'answered', 'dropped' or an error code), the token it held as a probe ('' it was none), 1 if such an error pauses at
-- once, the shortest pause, then the pauses of a streak
-- Returns the cause ('' calls go on), seconds of pause left, seconds of probe left, jobs refused in the longer of this
-- pause and the one before, if this report began a pause, how many that makes in a row (else 0), and the nanodollars that all
-- models have cost today.
local HALF_WINDOW = 5       -- failures are counted over this half and the one before
local OUTAGE_FAILURES = 5   -- so many of them pause the model if
local OUTAGE_SHARE = 0.5    -- they are at least this share of the calls
local CALM = 30             -- a pause that begins within so many seconds of the last one's end goes on with its streak

local model, names = KEYS[1], KEYS[2]
local answered, failed, refused = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local outcome, token, at_once, shortest = ARGV[6], ARGV[7], ARGV[8] == '1', tonumber(ARGV[9])
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
  redis.call('HINCRBY', model, 'crowd', refused)
  redis.call('HINCRBY', model, 'total:refused', refused)
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
  local seconds = math.max(shortest, tonumber(ARGV[10 + math.min(streak, #ARGV - 10)]))
  redis.call('HSET', model, 'cause', outcome, 'until', time + seconds, 'streak', streak + 1,
    'crowd_before', number('crowd'), 'crowd', 0)
  redis.call('HINCRBY', model, 'total:pauses', 1)
  return streak + 1
end

if answered + failed + refused > 0 then
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
      redis.call('HSET', model, 'until', math.max(tonumber(paused_until), time + shortest))
    end
  end
end
if answered + failed + refused > 0 or outcome ~= '' then
  redis.call('SADD', names, ARGV[1])
  redis.call('EXPIRE', names, ARGV[2])
  redis.call('EXPIRE', model, ARGV[2])
end
local cause = redis.call('HGET', model, 'cause') or ''
local function left(field)
  return string.format('%.3f', math.max(number(field) - time, 0))
end
return { cause, left('until'), left('probe_until'), math.max(number('crowd'), number('crowd_before')), began,
  redis.call('HGET', usage_today(), 'spent') or '0' }
