import type { RunningEngine } from '#calls/start-engine.ts'
import { startEngine } from '#calls/start-engine.ts'
import type { CatalogDocument } from '#contracts/catalog.ts'
import { importCatalog } from '#db/catalog.ts'
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

/** Its sandbox is known under two names, one for each API that it speaks. */
export async function useGateway(options: { readonly catalog?: CatalogDocument } = {}): Promise<TestGateway> {
  const sandbox = await useSandbox()
  let engine: RunningEngine | undefined
  const api = await useApi({
    async extend(app, { db, databaseUrl }) {
      if (options.catalog) await importCatalog(db, options.catalog)
      const settings = { baseUrl: sandbox.url, apiKey: 'sandbox-key' } as const
      const clock = { nowMs: () => Date.now() }
      const providers = [
        createProvider({ ...settings, kind: 'openai', name: 'sandbox' }, clock),
        createProvider({ ...settings, kind: 'anthropic', name: 'sandbox-anthropic' }, clock),
      ]
      engine = await startEngine({ db, databaseUrl, kind: 'test', providers })
      await registerGateway(app, { engine, drainTimeoutMs: 0 })
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
