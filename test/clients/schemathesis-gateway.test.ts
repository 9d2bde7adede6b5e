import { existsSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { INSTALL } from './install.ts'
import { documentOf, operationsOf, schemathesis, SCHEMATHESIS } from './schemathesis.ts'

const TIMEOUT_MS = 480_000

beforeAll(() => {
  if (!existsSync(SCHEMATHESIS)) throw new Error(INSTALL)
})

/** Of requests whose model is any text, none would be answered. */
const MODELS = ['research', 'claude', 'embed']

test(
  'Schemathesis finds no answer off schema and no failure of ours in the gateway',
  async () => {
    const { api, url, tenant } = await useGateway({ catalog })
    const document = await documentOf(api)
    for (const schema of Object.values(document.components.schemas)) nameModels(schema)
    const operations = operationsOf(document, '/v1/')
    await schemathesis({ url, key: tenant.key, document, operations, timeoutMs: TIMEOUT_MS })
    const answered = await api.db.selectFrom('call').select('id').where('state', '=', 'answered').execute()
    expect(answered.length).toBeGreaterThan(0)
    await expectVerified(api)
  },
  TIMEOUT_MS,
)

const requestSchema = z.looseObject({
  properties: z.looseObject({ model: z.looseObject({ maxLength: z.number() }) }),
})

function nameModels(schema: Record<string, unknown>): void {
  const request = requestSchema.safeParse(schema)
  if (!request.success) return
  schema['properties'] = { ...request.data.properties, model: { type: 'string', enum: MODELS } }
}

const catalog = gatewayCatalog({
  research: [{ name: 'steady', upstreamModel: 'sandbox-steady', capabilities: { vision: true } }],
  claude: [{ name: 'claude', provider: 'sandbox-anthropic', upstreamModel: 'sandbox-steady' }],
  embed: { embeds: { name: 'embed', upstreamModel: 'sandbox-embed' } },
})
