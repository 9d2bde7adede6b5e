import type { ApiDeps } from '#api/api-deps.ts'
import type { RunningEngine } from '#calls/start-engine.ts'
import { startEngine } from '#calls/start-engine.ts'
import { USUAL_GATEWAY_LIMITS, type GatewayLimits } from '#contracts/gateway-limits.ts'
import { createProvider } from '#providers/create-provider.ts'
import { registerGateway } from '#src/gateway/gateway.ts'
import Anthropic from '@anthropic-ai/sdk'
import type { CatalogDocument } from '#contracts/catalog.ts'
import type { ProviderKind } from '#contracts/names.ts'
import { importCatalog } from '#db/catalog.ts'
import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { makeTenant, useApi, type Tenant, type TestApi } from './api.ts'
import { checkedFetch } from './checked-fetch.ts'
import { checkerOf } from './openapi.ts'
import { useSandbox, type TestSandbox } from './sandbox.ts'

/** API and gateway on a port of their own, before a sandbox provider. */
export interface TestGateway {
  readonly api: TestApi
  readonly engine: RunningEngine
  readonly sandbox: TestSandbox
  readonly tenant: Tenant
  /** Of the whole server, without `/v1`. */
  readonly url: string
  /** Never retries; its answers are checked against the OpenAPI document. */
  client(key?: string): OpenAI
  /** Never retries; its answers are checked against the OpenAPI document. */
  anthropic(key?: string): Anthropic
}

export async function useGateway(
  options: {
    /** How the sandbox is spoken to; left out: as OpenAI. */
    readonly kind?: Extract<ProviderKind, 'openai' | 'anthropic'>
    /** In place of the usual one. */
    readonly catalog?: CatalogDocument
    readonly limits?: Partial<GatewayLimits>
    readonly keepAliveMs?: number
    readonly log?: ApiDeps['log']
  } = {},
): Promise<TestGateway> {
  const sandbox = await useSandbox()
  let engine: RunningEngine | undefined
  const api = await useApi({
    ...(options.log && { log: options.log }),
    async extend(app, { db, databaseUrl }) {
      if (options.catalog) await importCatalog(db, options.catalog)
      const kind = options.kind ?? 'openai'
      const settings = { kind, name: 'sandbox', baseUrl: sandbox.url, apiKey: 'sandbox-key' } as const
      const provider = createProvider(settings, { nowMs: () => Date.now() })
      // The same sandbox again, for models that have routes of both kinds.
      const other = createProvider(
        { ...settings, kind: 'anthropic', name: 'sandbox-anthropic' },
        { nowMs: () => Date.now() },
      )
      engine = await startEngine({ db, databaseUrl, kind: 'test', providers: [provider, other] })
      await registerGateway(app, {
        engine,
        drainTimeoutMs: 0,
        limits: { ...USUAL_GATEWAY_LIMITS, ...options.limits },
        ...(options.keepAliveMs !== undefined && { keepAliveMs: options.keepAliveMs }),
      })
    },
  })
  if (!engine) throw new Error('the gateway was not registered')
  const started = engine
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const tenant = await makeTenant(api)
  const checked = checkedFetch(await checkerOf(api.app))
  onTestFinished(async () => {
    await api.app.close()
    await started.stop()
    await checked.done()
  })
  return {
    api,
    engine: started,
    sandbox,
    tenant,
    url,
    anthropic: (key = tenant.key) =>
      new Anthropic({
        baseURL: url,
        apiKey: key,
        authToken: null,
        maxRetries: 0,
        logLevel: 'off',
        fetch: checked.fetch,
      }),
    client: (key = tenant.key) =>
      new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, fetch: checked.fetch }),
  }
}
