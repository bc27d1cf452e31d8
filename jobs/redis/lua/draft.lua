-- Appends a chunk to the draft of a running job's answer, and publishes it in the feed with the draft's revision.
-- restart: 1 if the text starts over with this chunk
-- Returns 1, or 0 when the token is stale.
if not holds(job, token) then
  return 0
end
local so_far = ''
if restart == '1' then
  redis.call('HINCRBY', job, 'drafts', 1)
else
  so_far = redis.call('HGET', job, 'draft') or ''
end
redis.call('HSET', job, 'draft', so_far .. chunk)
redis.call('XADD', feed, 'MAXLEN', '~', FEED_LENGTH, '*', 'job', job_id, 'draft', redis.call('HGET', job, 'drafts'),
  'at', #so_far, 'piece', chunk)
return 1
