import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { pollUntil } from '#test/support/poll.ts'
import { useSandbox } from '#test/support/sandbox.ts'

const model = 'sandbox-economy'
const messages = [
  {
    role: 'user' as const,
    content: '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?',
  },
]
const answer = 'The Vrell pump starts with a lever. [p]'
const notification = z.object({
  holdId: z.string(),
  callKey: z.string().nullable(),
  attempt: z.number().nullable(),
  model: z.string(),
})

/** A listener for one notification. */
async function listen(): Promise<{
  readonly notifyUrl: string
  readonly notified: Promise<z.infer<typeof notification>>
}> {
  const { promise: notified, resolve } = Promise.withResolvers<z.infer<typeof notification>>()
  const server = createServer((req, res) => {
    void text(req).then((body) => {
      resolve(notification.parse(JSON.parse(body)))
      res.end()
    })
  })
  const listening = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', listening.resolve)
  await listening.promise
  onTestFinished(() => void server.close())
  return { notifyUrl: `http://127.0.0.1:${z.object({ port: z.number() }).parse(server.address()).port}/held`, notified }
}

test('a held request has begun, is announced, and goes on when it is released', async () => {
  const { client, control, readLog } = await useSandbox()
  const { notifyUrl, notified } = await listen()
  await control('POST', '/holds', { model, afterRequests: 1, matching: 'lever', notifyUrl })
  const free = await client.chat.completions.create({ model, messages })
  expect(free.choices[0]?.message.content).toBe(answer)

  const headers = { 'x-client-request-id': 'run:plan:2' }
  const request = client.chat.completions.create({ model, messages }, { headers })
  const { holdId, ...held } = await notified
  expect(held).toEqual({ callKey: 'run:plan', attempt: 2, model })
  expect((await readLog())[1]).toMatchObject({ begun: true, finished: false, status: 0 })
  expect(await control('GET', '/holds')).toMatchObject([{ id: holdId, state: 'holding' }])

  const passing = await client.chat.completions.create({ model, messages })
  expect(passing.choices[0]?.message.content).toBe(answer)
  await control('POST', `/holds/${holdId}/release`)
  expect((await request).choices[0]?.message.content).toBe(answer)
  expect((await readLog())[1]).toMatchObject({ begun: true, finished: true, status: 200 })
})

test('a stream is held after its first pieces, and is whole after its release', async () => {
  const { client, control } = await useSandbox()
  const { notifyUrl, notified } = await listen()
  await control('POST', '/holds', { at: 'mid-stream', notifyUrl })
  const stream = await client.chat.completions.create({ model, messages, stream: true })
  let received = ''
  for await (const chunk of stream) {
    const piece = chunk.choices[0]?.delta.content ?? ''
    if (received === '' && piece !== '') await control('POST', `/holds/${(await notified).holdId}/release`)
    received += piece
  }
  expect(received).toBe(answer)
})

test('a held request is dropped when its client goes, billed for its prompt, and holds nobody else', async () => {
  const { client, control, readLog } = await useSandbox()
  const { notifyUrl, notified } = await listen()
  await control('POST', '/holds', { notifyUrl })
  const leave = new AbortController()
  const failed = expect(client.chat.completions.create({ model, messages }, { signal: leave.signal })).rejects.toThrow()
  await notified
  leave.abort()
  await failed
  const dropped = await pollUntil(async () => (await readLog()).find((each) => each.clientGoneAt !== undefined), {
    what: 'the provider notices that its client is gone',
  })
  expect(dropped).toMatchObject({ begun: true, finished: false, usage: { completionTokens: 0 } })
  expect(dropped.usage.promptTokens).toBeGreaterThan(0)
  expect(dropped.billed).not.toBe('0.000000000')
  expect(await control('GET', '/holds')).toMatchObject([{ state: 'dropped' }])
  await expect(client.chat.completions.create({ model, messages })).resolves.toBeDefined()
})

test('a notification that nobody hears does not harm the hold', async () => {
  const { client, control } = await useSandbox()
  await control('POST', '/holds', { notifyUrl: 'http://127.0.0.1:9/nobody' })
  const request = client.chat.completions.create({ model, messages })
  await pollUntil(async () => JSON.stringify(await control('GET', '/holds')).includes('fetch failed'), {
    what: 'the failed notification is shown',
  })
  await control('POST', '/holds/hold-1/release')
  expect((await request).choices[0]?.message.content).toBe(answer)
})
