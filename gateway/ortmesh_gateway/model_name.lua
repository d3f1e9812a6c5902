-- Puts the model's name into x-ortmesh-model, by which the routes choose. Runs only on methods of the Open Inference
-- Protocol that have the name in field 1 of the request. As protobuf does, the last occurrence counts; other fields
-- are skipped by their length and never copied: tensors may be megabytes.
local byte, sub, min, find = string.byte, string.sub, math.min, string.find
local WINDOW = 256        -- bytes of the body that are looked at as one Lua string
local LONGEST_NAME = 256
local MOST_FIELDS = 4096  -- of one message; a caller that sends more is sent to the directory

-- The value of field 1 in a gRPC message of `total` bytes, or nil.
local function model_name(body, total)
  local at, name = 5, nil  -- after gRPC's flag and length
  local base, window = 0, ""

  local function varint()
    local value, scale = 0, 1
    for _ = 1, 10 do
      local i = at - base + 1
      if i < 1 or i > #window then
        if at >= total then return nil end
        base, window = at, body:getBytes(at, min(WINDOW, total - at))
        i = 1
      end
      local x = byte(window, i)
      at = at + 1
      if x < 128 then return value + x * scale end
      value = value + (x - 128) * scale
      scale = scale * 128
    end
  end

  for _ = 1, MOST_FIELDS do
    if at >= total then return name end
    local key = varint()
    if key == nil then return nil end
    local wire = key % 8
    if wire == 2 then
      local size = varint()
      if size == nil or at + size > total then return nil end
      if key == 10 then
        if size > LONGEST_NAME then return nil end
        local i = at - base + 1
        if size == 0 then name = nil
        elseif i >= 1 and i + size - 1 <= #window then name = sub(window, i, i + size - 1)
        else name = body:getBytes(at, size) end
      end
      at = at + size
    elseif wire == 0 then
      if varint() == nil then return nil end
    elseif wire == 5 then at = at + 4
    elseif wire == 1 then at = at + 8
    else return nil end
  end
end

function envoy_on_request(handle)
  local body = handle:body()
  local total = body ~= nil and body:length() or 0
  if total > 5 then
    local name = model_name(body, total)
    if name ~= nil and find(name, "^[%w%._%-@/]+$") then handle:headers():add("x-ortmesh-model", name) end
  end
  handle:clearRouteCache()
end
