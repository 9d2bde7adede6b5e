import { documentGateway } from '#src/gateway/gateway.ts'
import Fastify from 'fastify'
import { expect, test } from 'vitest'
import { openApiDocument } from '../support/documented-api.ts'

test('the document has the gateway beside the management API, and no schema that nothing refers to', async () => {
  const document = await openApiDocument()
  expect(document).toMatchObject({
    openapi: '3.1.0',
    paths: {
      '/api/v1/runs': { post: { responses: { 402: expect.anything() } } },
      '/v1/chat/completions': { post: { responses: { 402: expect.anything() } } },
      '/v1/responses': { post: {} },
      '/v1/embeddings': { post: {} },
      '/v1/messages': { post: { responses: { 200: { content: { 'text/event-stream': expect.anything() } } } } },
      '/v1/messages/count_tokens': { post: {} },
      '/v1/models': { get: {} },
      '/v1/models/{model}': { get: {} },
    },
  })
  const text = JSON.stringify(document)
  const { schemas } = Object(document).components
  for (const name of Object.keys(schemas)) expect(text).toContain(`"#/components/schemas/${name}"`)
})

test('what a request may leave out, or write in short, is in the document', async () => {
  const { schemas } = Object(await openApiDocument()).components
  const { input } = schemas.OpenAiResponseRequestInput.properties
  expect(input.anyOf).toEqual([{ type: 'string' }, expect.objectContaining({ type: 'array' })])
  const [message] = input.anyOf[1].items.oneOf[0].oneOf
  expect(message.required).toEqual(['role', 'content'])
  expect(JSON.stringify(schemas)).not.toContain('x-or-text')
})

test('what is documented of the gateway costs its requests nothing: no schema is compiled', () => {
  const app = Fastify()
  const schemas: unknown[] = []
  app.addHook('onRoute', ({ method, schema }) => {
    if (method !== 'HEAD') schemas.push(schema)
  })
  documentGateway(app)
  expect(schemas).toEqual(Array(7).fill(undefined))
})
