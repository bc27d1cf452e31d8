-- Prepended to each script. Time is the server's own, so that no two hosts disagree on a lease.
local FEED_LENGTH = 5000

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- A full Redis (maxmemory, noeviction) refuses a script whose first write might make it grow, and lets go on whatever began
-- with another. Jobs that were taken must come to their end, so their scripts begin with this, which writes nothing.
local function although_full()
  redis.call('DEL', 'bunri:nothing')
end

-- Appends one event to the job's list and tells the feed. The event's number is its place in the list, and
-- is spliced into the JSON text here, because only this script knows it.
local function append(job_id, events, feed, body)
  local seq = redis.call('LLEN', events) + 1
  local event = string.format('{"seq":%d,"ts":%.3f,', seq, now()) .. string.sub(body, 2)
  redis.call('RPUSH', events, event)
  redis.call('XADD', feed, 'MAXLEN', '~', FEED_LENGTH, '*', 'job', job_id, 'seq', seq, 'event', event)
end

local function holds(job, token)
  local state = redis.call('HMGET', job, 'status', 'token')
  return state[1] == 'running' and state[2] == token
end

-- Fields come as ARGV[first] = how many arguments follow, then name, value, name, value…
local function set_fields(job, first)
  local count = tonumber(ARGV[first])
  if count > 0 then
    redis.call('HSET', job, unpack(ARGV, first + 1, first + count))
  end
  return first + count + 1
end
