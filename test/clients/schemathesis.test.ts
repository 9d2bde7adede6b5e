import { DOCUMENT_PATH } from '../../src/api/documentation.ts'
import { existsSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { INSTALL } from './install.ts'
import { schemathesis, SCHEMATHESIS } from './schemathesis.ts'

const TIMEOUT_MS = 480_000

beforeAll(() => {
  if (!existsSync(SCHEMATHESIS)) throw new Error(INSTALL)
})

const documentSchema = z.looseObject({
  components: z.looseObject({ schemas: z.record(z.string(), z.record(z.string(), z.unknown())) }),
})

async function documentAt({ api }: TestGateway): Promise<z.infer<typeof documentSchema>> {
  return documentSchema.parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
}

for (const who of ['an operator', 'a project'] as const) {
  test(
    `Schemathesis finds no answer off schema and no failure of ours in the management API for the key of ${who}`,
    async () => {
      const gateway = await useGateway()
      const { api, url, tenant } = gateway
      await schemathesis({
        url,
        key: who === 'an operator' ? api.operatorKey : tenant.key,
        document: await documentAt(gateway),
        paths: '^/api/',
        timeoutMs: TIMEOUT_MS,
      })
      await expectVerified(api)
    },
    TIMEOUT_MS,
  )
}

/** Of requests whose model is any text, none would be answered. */
const MODELS = ['research', 'claude', 'embed']

test(
  'Schemathesis finds no answer off schema and no failure of ours in the gateway',
  async () => {
    const gateway = await useGateway({ catalog })
    const { api, url, tenant } = gateway
    const document = await documentAt(gateway)
    for (const schema of Object.values(document.components.schemas)) nameModels(schema)
    await schemathesis({ url, key: tenant.key, document, paths: '^/v1/', timeoutMs: TIMEOUT_MS })
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
