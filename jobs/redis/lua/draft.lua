-- Adds a piece to what the answer of a running job says so far, and tells the feed, which numbers each beginning.
-- KEYS: job, feed
-- ARGV: job id, token, 1 if the text begins anew with this piece, the piece
-- Returns 1, or 0 when the token is stale.
local job = KEYS[1]
if not holds(job, ARGV[2]) then
  return 0
end
local so_far = ''
if ARGV[3] == '1' then
  redis.call('HINCRBY', job, 'drafts', 1)
else
  so_far = redis.call('HGET', job, 'draft') or ''
end
redis.call('HSET', job, 'draft', so_far .. ARGV[4])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', FEED_LENGTH, '*', 'job', ARGV[1], 'draft', redis.call('HGET', job, 'drafts'),
  'at', #so_far, 'piece', ARGV[4])
return 1
