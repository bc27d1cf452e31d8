-- Prepended to each script, behind the names of keys (`keys.py`) and before those of its arguments (`signatures.py`).
-- Time is the server's own, so that no two hosts disagree on a lease.
local FEED_LENGTH = 5000
local PACE_MEMORY = 30    -- seconds after which a job's service time counts for a third in PACE
local BULK_BEHIND = 1e10  -- seconds that bulk jobs stand behind interactive ones of the same age

-- Seconds that a day's usage is kept. Money is whole nanodollars, so that sums are exact.
local USAGE_KEPT = 100 * 86400

-- A job with a callback is kept for so many seconds after its next attempt is due: no worker need be alive meanwhile.
local KEPT_FOR_DELIVERY = 86400

-- Attempts at a delivery that are remembered: the last ones.
local ATTEMPTS_KEPT = 100

local script_time  -- A script is one moment, and asks once.
local function now()
  if not script_time then
    local time = redis.call('TIME')
    script_time = tonumber(time[1]) + tonumber(time[2]) / 1e6
  end
  return script_time
end

-- A full Redis (maxmemory, noeviction) rejects a script whose first write might make it grow, and lets one go on that began
-- with another write. Jobs that were taken must come to their end, so their scripts begin with this, which writes nothing.
local function bypass_oom_guard()
  redis.call('DEL', NEVER_WRITTEN)
end

-- Appends one event to the job's list. The event's number is its position in the list, and is spliced into the JSON text
-- here, because only this script knows it.
local function append_event(events, body)
  local seq = redis.call('LLEN', events) + 1
  local event = string.format('{"seq":%d,"ts":%.3f,', seq, now()) .. string.sub(body, 2)
  redis.call('RPUSH', events, event)
  return seq, event
end

-- As `append_event`, and publishes the event in the feed.
local function append_and_publish(job_id, events, feed, body)
  local seq, event = append_event(events, body)
  redis.call('XADD', feed, 'MAXLEN', '~', FEED_LENGTH, '*', 'job', job_id, 'seq', seq, 'event', event)
end

local function holds(job, token)
  local state = redis.call('HMGET', job, 'status', 'token')
  return state[1] == 'running' and state[2] == token
end

-- A job's score in the queue: by age, and each interactive job before all bulk ones. One that is put back keeps it.
local function queue_score(job)
  local record = redis.call('HMGET', job, 'created_at', 'priority')
  return tonumber(record[1]) + (record[2] == 'bulk' and BULK_BEHIND or 0)
end

-- Adds the time for which a worker was busy with the job, when it lets go of it, to the decaying sums that the estimated
-- wait is computed from (`backlog.py`).
local function note_service_time(job)
  local time = now()
  local record = redis.call('HMGET', job, 'claimed_at', 'priority')
  if not record[1] then
    return
  end
  local pace = redis.call('HMGET', PACE, 'at', 'seconds', 'turns', 'interactive')
  local kept = math.exp(math.min(0, (tonumber(pace[1]) or time) - time) / PACE_MEMORY)
  local function sum(old, new)
    return (tonumber(old) or 0) * kept + new
  end
  redis.call('HSET', PACE, 'at', time,
    'seconds', sum(pace[2], math.max(0, time - tonumber(record[1]))),
    'turns', sum(pace[3], 1),
    'interactive', sum(pace[4], record[2] == 'bulk' and 0 or 1))
end

-- Fields are a list of name, value, name, value…
local function set_fields(job, fields)
  local count = tonumber(ARGV[fields])
  if count > 0 then
    redis.call('HSET', job, unpack(ARGV, fields + 1, fields + count))
  end
end

local function usage_today()
  return USAGE .. ':' .. math.floor(now() / 86400)
end

-- Counts model calls that were paid for, of today and in all, each of them once however often it is reported: its entry in
-- the job's record is the proof. Also when the caller holds the job no longer, because the money is spent all the same.
-- Charges are a list: for each call its entry's name and value, the model, and tokens in, cached, out and nanodollars.
local function charge(job, charges)
  local last = charges + tonumber(ARGV[charges])
  if last > charges and redis.call('EXISTS', job) == 1 then
    bypass_oom_guard()
    local today = usage_today()
    for i = charges + 1, last, 7 do
      if redis.call('HSETNX', job, ARGV[i], ARGV[i + 1]) == 1 then
        for _, key in ipairs({ today, USAGE }) do
          redis.call('HINCRBY', key, 'calls:' .. ARGV[i + 2], 1)
          for n, kind in ipairs({ 'input', 'cached', 'output', 'nanodollars' }) do
            redis.call('HINCRBY', key, kind .. ':' .. ARGV[i + 2], ARGV[i + 2 + n])
          end
        end
        redis.call('HINCRBY', today, 'spent', ARGV[i + 6])
        redis.call('EXPIRE', today, USAGE_KEPT)
      end
    end
  end
end

-- Extends the TTL of a job's keys beyond its next attempt at a delivery, which is due in so many seconds.
local function keep_for_delivery(seconds, job, ...)
  local ttl = math.max(redis.call('TTL', job), math.ceil(seconds) + KEPT_FOR_DELIVERY)
  redis.call('HSET', job, 'expires_at', now() + ttl)
  for _, key in ipairs({ job, ... }) do
    redis.call('EXPIRE', key, ttl)
  end
end

-- Notes the attempt that began last in the job's list, with its number and time, which only the record knows.
local function note_attempt(job, attempts, counts, outcome, body)
  local state = redis.call('HMGET', job, 'delivery:number', 'delivery:began')
  local head = string.format('{"number":%s,"at":%.3f,', state[1], tonumber(state[2]))
  redis.call('RPUSH', attempts, head .. string.sub(body, 2))
  redis.call('LTRIM', attempts, -ATTEMPTS_KEPT, -1)
  redis.call('EXPIRE', attempts, redis.call('TTL', job))
  redis.call('HINCRBY', counts, outcome, 1)
end
