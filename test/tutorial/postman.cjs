// postman.cjs METHOD: prints the URL of the one request with that method in Swift.postman_collection.json, its variables taken
// from the environment. Fails if the collection is not what the tutorial wants: v2.1, one PUT of a file and one GET.
'use strict'

const assert = require('node:assert')
const collection = require('./Swift.postman_collection.json')

assert.match(collection.info.schema, /\/v2\.1\.0\//, 'not version 2.1')
const requests = collection.item.map((item) => item.request)
assert.deepEqual(requests.map((r) => r.method).sort(), ['GET', 'PUT'])
const request = requests.find((r) => r.method === process.argv[2])
assert.ok(request, `no ${process.argv[2]}`)
assert.equal(request.body?.mode, request.method === 'PUT' ? 'file' : undefined)
assert.deepEqual(request.header, [])
// Postman sends url.host and url.query; raw is what it shows.
const { raw, host, query } = request.url
assert.equal(raw, `${host.join('.')}?${query.map((q) => `${q.key}=${q.value}`).join('&')}`)

const known = new Set(collection.variable.map((v) => v.key))
console.log(raw.replace(/\{\{(\w+)\}\}/g, (_, name) => {
  assert.ok(known.has(name), `{{${name}}} is no variable of the collection`)
  assert.ok(process.env[name], `${name} is not in the environment`)
  return process.env[name]
}))
