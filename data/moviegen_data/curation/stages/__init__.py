"""The stages that come with moviegen. A stage of yours is offered by the hook `moviegen_curation_stages`."""
