import { expect, test } from 'vitest'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { readAll } from '../support/sandbox.ts'

const SLOW = 'sandbox-steady:slow-1500'
const catalog = gatewayCatalog({
  slow: [{ upstreamModel: SLOW }],
  whole: [{ upstreamModel: SLOW, capabilities: { streaming: false } }],
  hanging: [{ upstreamModel: 'sandbox-steady:hang', firstByteTimeoutMs: 1_500, timeoutMs: 1_500 }],
})
const messages = [{ role: 'user' as const, content: QUESTION }]

test('a stream whose model thinks for long says that it is there, whoever asks, and its answer comes whole', async () => {
  const gateway = await useGateway({ catalog, keepAliveMs: 100 })
  const { url, tenant } = gateway
  const rawOf = async (path: string, body: object) => {
    const headers = { 'content-type': 'application/json', 'x-api-key': tenant.key }
    const sent = { method: 'POST', headers, body: JSON.stringify({ model: 'slow', stream: true, ...body }) }
    const answer = await fetch(`${url}/v1/${path}`, sent)
    expect(answer.headers.get('x-purser-held')).toMatch(/ USD$/)
    return answer.text()
  }
  expect(await rawOf('chat/completions', { messages, max_tokens: 200 })).toMatch(
    /^: keep-alive\n\n[\s\S]*data: \[DONE\]/,
  )
  expect(await rawOf('responses', { input: QUESTION })).toMatch(/^: keep-alive\n\n[\s\S]*response.completed/)
  expect(await rawOf('messages', { messages, max_tokens: 200 })).toMatch(
    /^event: ping\ndata: {"type":"ping"}\n\n[\s\S]*message_start[\s\S]*message_stop/,
  )

  for (const model of ['slow', 'whole']) {
    const asked = { model, messages, max_tokens: 200 }
    const chunks = await readAll(await gateway.client().chat.completions.create({ ...asked, stream: true }))
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
    expect(text).toContain('1711')
    const response = await gateway.client().responses.stream({ model, input: QUESTION }).finalResponse()
    expect(response.output_text).toContain('1711')
    const message = await gateway.anthropic().messages.stream(asked).finalMessage()
    expect(message.content[0]).toMatchObject({ type: 'text', text: expect.stringContaining('1711') })
  }
  await expectVerified(gateway.api)
}, 120_000)

test('where no answer comes after all, the stream ends with an error event', async () => {
  const gateway = await useGateway({ catalog, keepAliveMs: 100 })
  const asked = { model: 'hanging', messages, max_tokens: 200, stream: true as const }
  const reading = gateway.client().chat.completions.create(asked).then(readAll)
  await expect(reading).rejects.toMatchObject({ code: expect.stringMatching(/^(upstream|repeat)_/) })
}, 60_000)
