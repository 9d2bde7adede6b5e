import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { useGateway } from '../support/gateway.ts'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { expectVerified } from '../support/open-attempt.ts'

const catalog = gatewayCatalog({
  steady: [{ upstreamModel: 'sandbox-steady' }],
  embed: { embeds: { upstreamModel: 'sandbox-embed', contextTokens: 8_192, maxOutputTokens: 1 } },
})
const TEXTS = ['The mill was built in 1711.', 'The mill burnt down in 1820.', 'The mill was built in 1711.']

test('texts are embedded, as floats and packed, and told what they cost', async () => {
  const gateway = await useGateway({ catalog })
  const client = gateway.client()
  const { data: packed, response } = await client.embeddings
    .create({ model: 'embed', input: TEXTS, user: 'somebody' })
    .withResponse()
  expect(packed.data.map(({ index }) => index)).toEqual([0, 1, 2])
  expect(packed.data[0]?.embedding).toEqual(packed.data[2]?.embedding)
  expect(packed.data[0]?.embedding).not.toEqual(packed.data[1]?.embedding)
  expect(packed.usage.prompt_tokens).toBeGreaterThan(20)
  expect(packed.usage.total_tokens).toBe(packed.usage.prompt_tokens)
  expect(response.headers.get('x-purser-route')).toBe('sandbox-embed')
  expect(response.headers.get('x-purser-cost')).toMatch(/^0\.0\d+ USD$/)
  expect(response.headers.get('x-purser-remaining')).toMatch(/^9\.99\d+ USD$/)

  const floats = await client.embeddings.create({ model: 'embed', input: TEXTS, encoding_format: 'float' })
  expect(floats.data.map(({ embedding }) => embedding)).toEqual(packed.data.map(({ embedding }) => [...embedding]))
  const short = await client.embeddings.create({ model: 'embed', input: 'a mill', dimensions: 8 })
  expect(short.data.map(({ embedding }) => embedding.length)).toEqual([8])
  expect(await gateway.sandbox.readLog()).toHaveLength(3)
  await expectVerified(gateway.api)
}, 60_000)

test('the same texts under an Idempotency-Key are embedded once', async () => {
  const gateway = await useGateway({ catalog })
  const ask = () =>
    gateway.client().embeddings.create({ model: 'embed', input: TEXTS }, { headers: { 'Idempotency-Key': 'texts' } })
  expect(await ask()).toEqual(await ask())
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  await expectVerified(gateway.api)
}, 60_000)

test('what cannot be embedded is refused, before anything is sent', async () => {
  const gateway = await useGateway({ catalog })
  const refused = async (change: object) => {
    const error: unknown = await gateway
      .client()
      .embeddings.create({ model: 'embed', input: 'a mill', ...change })
      .catch((each: unknown) => each)
    if (error instanceof OpenAI.APIError) return error
    throw new Error('it was answered')
  }
  expect(await refused({ input: [1, 2, 3] })).toMatchObject({ status: 400, param: 'input' })
  expect((await refused({ input: [[1, 2], [3]] })).message).toContain('lists of tokens are not supported')
  expect(await refused({ input: [] })).toMatchObject({ status: 400, param: 'input' })
  expect(await refused({ input: [''] })).toMatchObject({ status: 400 })
  expect(await refused({ input_type: 'query' })).toMatchObject({
    status: 400,
    code: 'unsupported_parameter',
    param: 'input_type',
  })
  expect(await refused({ model: 'steady' })).toMatchObject({ status: 422, code: 'no_route', param: 'model' })
  const chat = gateway.client().chat.completions.create({ model: 'embed', messages: [{ role: 'user', content: 'hi' }] })
  await expect(chat).rejects.toMatchObject({ code: 'no_route', message: expect.stringContaining('embed embeds texts') })
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
}, 60_000)
