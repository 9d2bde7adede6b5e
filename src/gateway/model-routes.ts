import type { CatalogModel } from '#contracts/catalog.ts'
import type { FastifyInstance } from 'fastify'
import { callerOfRequest } from '../access.ts'
import { mayUse, payerFor, type GatewayDeps } from '../gateway-deps.ts'

/** `GET /v1/models` and `GET /v1/models/{model}`: what the key may ask for. */
export function modelRoutes(app: FastifyInstance, deps: GatewayDeps): void {
  app.get('/models', async (request) => {
    const caller = callerOfRequest(request)
    const { catalog } = await deps.engine.shelf.newest()
    return { object: 'list', data: catalog.models.filter(({ name }) => mayUse(caller, name)).map(toModel) }
  })

  app.get<{ Params: { model: string } }>('/models/:model', async (request) => {
    const { model } = await payerFor(deps, callerOfRequest(request), request.params.model)
    return toModel(model)
  })
}

function toModel({ name }: CatalogModel): object {
  return { id: name, object: 'model', created: 0, owned_by: 'purser' }
}
