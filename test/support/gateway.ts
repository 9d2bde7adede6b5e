import type { ApiDeps } from '#api/api-deps.ts'
import type { RunningEngine } from '#calls/start-engine.ts'
import { startEngine } from '#calls/start-engine.ts'
import { USUAL_GATEWAY_LIMITS, type GatewayLimits } from '#contracts/gateway-limits.ts'
import { createProvider } from '#providers/create-provider.ts'
import { registerGateway } from '#src/gateway/gateway.ts'
import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { makeTenant, useApi, type Tenant, type TestApi } from './api.ts'
import { useSandbox, type TestSandbox } from './sandbox.ts'

/** API and gateway on a port of their own, before a sandbox provider. */
export interface TestGateway {
  readonly api: TestApi
  readonly engine: RunningEngine
  readonly sandbox: TestSandbox
  readonly tenant: Tenant
  /** Of the whole server, without `/v1`. */
  readonly url: string
  /** Never retries. */
  client(key?: string): OpenAI
}

export async function useGateway(
  options: { readonly limits?: Partial<GatewayLimits>; readonly log?: ApiDeps['log'] } = {},
): Promise<TestGateway> {
  const sandbox = await useSandbox()
  let engine: RunningEngine | undefined
  const api = await useApi({
    ...(options.log && { log: options.log }),
    async extend(app, { db, databaseUrl }) {
      const settings = { kind: 'openai', name: 'sandbox', baseUrl: sandbox.url, apiKey: 'sandbox-key' } as const
      const provider = createProvider(settings, { nowMs: () => Date.now() })
      engine = await startEngine({ db, databaseUrl, kind: 'test', providers: [provider] })
      await registerGateway(app, { engine, drainTimeoutMs: 0, limits: { ...USUAL_GATEWAY_LIMITS, ...options.limits } })
    },
  })
  if (!engine) throw new Error('the gateway was not registered')
  const started = engine
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const tenant = await makeTenant(api)
  onTestFinished(async () => {
    await api.app.close()
    await started.stop()
  })
  return {
    api,
    engine: started,
    sandbox,
    tenant,
    url,
    client: (key = tenant.key) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }),
  }
}
