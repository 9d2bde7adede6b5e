import { buildApi } from '#api/api.ts'
import { connectDatabase } from '#db/database.ts'
import { documentGateway } from '#src/gateway/gateway.ts'
import { testDeps } from './api-deps.ts'

/** The OpenAPI document of the whole server, which needs no database. */
export async function openApiDocument(): Promise<object> {
  const db = connectDatabase({ url: 'postgres://nobody@127.0.0.1:1/none', maxConnections: 1 })
  const app = await buildApi(testDeps({ db }))
  documentGateway(app)
  await app.ready()
  const document = app.swagger()
  await app.close()
  await db.destroy()
  return document
}
