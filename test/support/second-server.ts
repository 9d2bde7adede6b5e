import { buildApi } from '#api/api.ts'
import { startEngine } from '#calls/start-engine.ts'
import { connectDatabase } from '#db/database.ts'
import { registerGateway } from '#src/gateway/gateway.ts'
import { onTestFinished } from 'vitest'
import { testDeps } from './api-deps.ts'
import type { TestApi } from './api.ts'

/** Another server on the database of the first, with connections and memory of its own. Returns its address. */
export async function startSecondServer({ database }: TestApi): Promise<string> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 4 })
  const engine = await startEngine({ db, databaseUrl: database.appUrl, kind: 'test', providers: [] })
  const app = await buildApi(testDeps({ db }))
  await registerGateway(app, { engine, drainTimeoutMs: 0 })
  onTestFinished(async () => {
    await app.close()
    await engine.stop()
    await db.destroy()
  })
  return app.listen({ host: '127.0.0.1', port: 0 })
}
