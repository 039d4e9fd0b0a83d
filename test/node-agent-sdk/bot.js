// A bot of LivePerson's node-agent-sdk, unchanged from npm: it joins every open conversation as a manager, downloads the file
// that a consumer sends, sends one of its own back, and prints the SHA-256 of both:
//
//   received HASH
//   sent HASH
//
// Environment: LP_ACCOUNT, LP_USER, LP_PASS, LP_CSDS (host:port of the Domain API), NODE_EXTRA_CA_CERTS. It runs until it is
// ended, for a minute at the most, and exits with 1 at the first thing that goes wrong.
'use strict'

const crypto = require('crypto')
const fs = require('fs')
const https = require('https')
const os = require('os')
const path = require('path')
const { Agent } = require('node-agent-sdk')

const fail = (what) => (err) => {
  console.error(`bot: ${what}:`, err)
  process.exit(1)
}
setTimeout(() => fail('time')('a minute is over'), 60000)
process.on('SIGTERM', () => process.exit(0))

const agent = new Agent({
  accountId: process.env.LP_ACCOUNT,
  username: process.env.LP_USER,
  password: process.env.LP_PASS,
  csdsDomain: process.env.LP_CSDS
})
agent.on('error', fail('error'))
agent.on('closed', fail('socket closed'))

// ask makes a request of the SDK a promise.
const ask = (name, body) => new Promise((resolve, reject) => {
  agent[name](body, (err, answer) => err ? reject(new Error(`${name}: ${JSON.stringify(err.body || err.message || err)}`)) : resolve(answer))
})

agent.on('connected', async () => {
  try {
    await ask('getClock', {})
    // Away: conversations are joined here, not rung for.
    await ask('setAgentState', { availability: 'AWAY' })
    await ask('subscribeExConversations', { convState: ['OPEN'] })
    console.log('ready')
  } catch (err) {
    fail('start')(err)
  }
})

const joined = new Set()
agent.on('cqm.ExConversationChangeNotification', (body) => {
  for (const { type, result } of body.changes) {
    if (type !== 'UPSERT' || joined.has(result.convId)) continue
    joined.add(result.convId)
    join(result.convId).catch(fail('join'))
  }
})

async function join (convId) {
  await ask('updateConversationField', {
    conversationId: convId,
    conversationField: [{ field: 'ParticipantsChange', type: 'ADD', role: 'MANAGER' }]
  })
  // What was published before the bot came; what comes later is sent without asking.
  await ask('subscribeMessagingEvents', { dialogId: convId, fromSeq: 0 })
}

const seen = new Set()
agent.on('ms.MessagingEventNotification', (body) => {
  for (const change of body.changes) {
    const { event, originatorId, sequence } = change
    if (event.type !== 'ContentEvent' || event.contentType !== 'hosted/file' || originatorId === agent.agentId) continue
    const id = `${change.dialogId || body.dialogId} ${sequence}` // it may come twice: from the past, and as it happens
    if (seen.has(id)) continue
    seen.add(id)
    reply(change.dialogId || body.dialogId, event.message).catch(fail('reply'))
  }
})

async function reply (dialogId, message) {
  const { bytes } = await storage('GET', await ask('generateURLForDownloadFile', { relativePath: message.relativePath }))
  console.log('received', sha256(bytes))

  // A picture with noise behind its end, another each time. It is sent as the SDK's own example does it: as a stream without a
  // length, and published without a preview.
  const noisy = Buffer.concat([Buffer.from('R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=', 'base64'), crypto.randomBytes(300000)])
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'bot-'))
  let url
  try {
    const file = path.join(dir, 'reply.gif')
    fs.writeFileSync(file, noisy)
    url = await ask('generateURLForUploadFile', { fileSize: noisy.length, fileType: 'GIF' })
    await storage('PUT', url, fs.createReadStream(file))
  } finally {
    fs.rmSync(dir, { recursive: true })
  }
  console.log('sent', sha256(noisy))
  await ask('publishEvent', {
    dialogId,
    event: {
      type: 'ContentEvent',
      contentType: 'hosted/file',
      message: { caption: 'A file from the bot', relativePath: url.relativePath, fileType: 'GIF' }
    }
  })
}

// storage makes the request to the object storage that url is signed for.
async function storage (method, url, content) {
  const domains = await new Promise((resolve, reject) => agent.csdsClient.getAll((err, all) => err ? reject(err) : resolve(all)))
  const { temp_url_sig: sig, temp_url_expires: expires } = url.queryParams
  return new Promise((resolve, reject) => {
    const request = https.request(`https://${domains.swift}${url.relativePath}?temp_url_sig=${sig}&temp_url_expires=${expires}`, { method }, (response) => {
      const parts = []
      response.on('data', (part) => parts.push(part))
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode !== (method === 'PUT' ? 201 : 200)) {
          return reject(new Error(`${method}: ${response.statusCode} ${Buffer.concat(parts)}`))
        }
        resolve({ bytes: Buffer.concat(parts) })
      })
    })
    request.on('error', reject)
    if (content) content.on('error', reject).pipe(request)
    else request.end()
  })
}

function sha256 (bytes) {
  return crypto.createHash('sha256').update(bytes).digest('hex')
}
