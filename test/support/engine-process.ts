import { executeCall } from '#calls/execute.ts'
import { startEngine } from '#calls/start-engine.ts'
import { connectDatabase } from '#db/database.ts'
import { PROVIDER_KINDS } from '#contracts/names.ts'
import { createProvider } from '#providers/create-provider.ts'
import { z } from 'zod'

/** An engine in a process of its own that executes calls, all at once, to be killed in the middle. */
const order = z
  .object({
    databaseUrl: z.string(),
    providerUrl: z.string(),
    scope: z.object({ projectId: z.string() }),
    runId: z.string(),
    envelopeId: z.string(),
    apiKeyId: z.string(),
    paths: z.array(z.string()),
    question: z.string(),
    mayRepeat: z.int(),
    kind: z.enum(PROVIDER_KINDS).default('openai'),
  })
  .parse(JSON.parse(process.env['ENGINE_ORDER'] ?? ''))

const { databaseUrl, providerUrl, kind, question, paths, ...call } = order
const db = connectDatabase({ url: databaseUrl, maxConnections: 4 })
const settings = { name: 'sandbox', kind, baseUrl: providerUrl, apiKey: 'sandbox-key' }
const provider = createProvider(settings, { nowMs: () => Date.now() })
const engine = await startEngine({ db, databaseUrl, kind: 'test', providers: [provider] })
// What a call reads is read before it: what is stopped then is the call itself.
await engine.shelf.newest()
process.stdout.write(`${JSON.stringify({ ready: { pid: process.pid } })}\n`)
process.once('SIGUSR2', () => {
  for (const path of paths) {
    void executeCall(engine, {
      ...call,
      path,
      model: 'steady',
      body: { messages: [{ role: 'user', content: question }], maxTokens: 200 },
      signal: new AbortController().signal,
      deadlineMs: Date.now() + 540_000,
    })
  }
})
// Nothing else keeps this process alive.
setInterval(() => {}, 60_000)
