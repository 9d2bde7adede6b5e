import type { FastifyInstance } from 'fastify'
import { callerOfRequest } from './access.ts'
import { toModelInfo, toModelPage } from './anthropic/model-info.ts'
import { mayUse, modelFor, type GatewayDeps } from './gateway-deps.ts'
import { toModel } from './openai/model.ts'
import { speaksAnthropic } from './surface.ts'

/** `GET /v1/models` and `GET /v1/models/{model}`: what the key may ask for, in the words of the client. */
export function modelRoutes(app: FastifyInstance, deps: GatewayDeps): void {
  app.get('/models', async (request) => {
    const caller = callerOfRequest(request)
    const { catalog } = await deps.engine.shelf.newest()
    const models = catalog.models.filter(({ name }) => mayUse(caller, name))
    return speaksAnthropic(request) ? toModelPage(models) : { object: 'list', data: models.map(toModel) }
  })

  app.get<{ Params: { model: string } }>('/models/:model', async (request) => {
    const model = await modelFor(deps, callerOfRequest(request), request.params.model)
    return speaksAnthropic(request) ? toModelInfo(model) : toModel(model)
  })
}
