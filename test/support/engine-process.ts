import { executeCall } from '#calls/execute.ts'
import { startEngine } from '#calls/start-engine.ts'
import { connectDatabase } from '#db/database.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { z } from 'zod'

/** An engine in a process of its own that executes one call, to be killed in the middle. */
const order = z
  .object({
    databaseUrl: z.string(),
    providerUrl: z.string(),
    scope: z.object({ projectId: z.string() }),
    runId: z.string(),
    envelopeId: z.string(),
    apiKeyId: z.string(),
    path: z.string(),
    question: z.string(),
    mayRepeat: z.int(),
  })
  .parse(JSON.parse(process.env['ENGINE_ORDER'] ?? ''))

const { databaseUrl, providerUrl, question, ...call } = order
const db = connectDatabase({ url: databaseUrl, maxConnections: 4 })
const provider = createOpenAiCompatible({
  name: 'sandbox',
  baseUrl: providerUrl,
  apiKey: 'sandbox-key',
  nowMs: () => Date.now(),
})
const engine = await startEngine({ db, databaseUrl, kind: 'test', providers: [provider] })
// What a call reads is read before it: what is stopped then is the call itself.
await engine.shelf.newest()
process.stdout.write(`${JSON.stringify({ ready: { pid: process.pid } })}\n`)
process.once('SIGUSR2', () => {
  void executeCall(engine, {
    ...call,
    model: 'steady',
    body: { messages: [{ role: 'user', content: question }], maxTokens: 200 },
    signal: new AbortController().signal,
    deadlineMs: Date.now() + 540_000,
  })
})
// Nothing else keeps this process alive.
setInterval(() => {}, 60_000)
