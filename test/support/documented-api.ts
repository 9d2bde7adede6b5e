import { buildApi } from '#api/api.ts'
import { connectDatabase } from '#db/database.ts'
import { documentGateway } from '#src/gateway/gateway.ts'
import type { FastifyInstance } from 'fastify'
import { testDeps } from './api-deps.ts'

/** Of the OpenAPI document what is not the gateway's, which others have clients for. */
export async function managementDocument(): Promise<object> {
  return documentOf(() => {})
}

/** The OpenAPI document of the whole server, which needs no database. */
export async function openApiDocument(): Promise<object> {
  return documentOf(documentGateway)
}

async function documentOf(documentMore: (app: FastifyInstance) => void): Promise<object> {
  const db = connectDatabase({ url: 'postgres://nobody@127.0.0.1:1/none', maxConnections: 1 })
  const app = await buildApi(testDeps({ db }))
  documentMore(app)
  await app.ready()
  const document = app.swagger()
  await app.close()
  await db.destroy()
  return document
}
