"""Options of what contacts a DICOMweb server. Where it is, and what is asked of it, is in the input itself."""

import base64

from pydantic import Field, field_validator

from ..errors import RequestError
from ..options import NEUTRAL, Options
from ..servers import secret


class WebOptions(Options):
    """Options of DICOMweb servers. Passwords and tokens are in environment variables, which the options name."""

    web_token_variable: str = Field(
        default="",
        description="DICOMweb: the environment variable with the server's access token (Bearer).",
        json_schema_extra=NEUTRAL,
    )
    web_user_variable: str = Field(
        default="", description="DICOMweb: the environment variable with the user name.", json_schema_extra=NEUTRAL
    )
    web_password_variable: str = Field(
        default="", description="DICOMweb: the environment variable with the password.", json_schema_extra=NEUTRAL
    )
    web_ca_file: str = Field(
        default="",
        description="DICOMweb: PEM file of the certificate authority that signed the server's certificate.",
        json_schema_extra=NEUTRAL,
    )
    web_insecure: bool = Field(
        default=False,
        description="DICOMweb: whether plain http to another machine is allowed.",
        json_schema_extra=NEUTRAL,
    )
    web_timeout: float = Field(
        default=60.0,
        ge=0.1,
        le=86400,
        description="DICOMweb: seconds that a server may send nothing, and that a short answer may take.",
        json_schema_extra=NEUTRAL,
    )
    web_retries: int = Field(
        default=4,
        ge=0,
        le=20,
        description="DICOMweb: retries after a failure that may pass.",
        json_schema_extra=NEUTRAL,
    )
    web_cache: str = Field(
        default="",
        description="DICOMweb: the folder of fetched studies; by default `dicomweb` in limner's cache folder.",
        json_schema_extra=NEUTRAL,
    )
    web_cache_gb: float = Field(
        default=50.0, gt=0, le=1e6, description="DICOMweb: most GB in that folder.", json_schema_extra=NEUTRAL
    )
    web_studies: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="DICOMweb: the most studies that one query may match.",
        json_schema_extra=NEUTRAL,
    )

    @field_validator("web_token_variable", "web_user_variable", "web_password_variable")
    @classmethod
    def _check_variable(cls, value: str) -> str:
        if value and not (value.isascii() and value.replace("_", "a").isalnum()):
            remedy = "For example web_token_variable=PACS_TOKEN"
            rule = "must be the name of an environment variable, not its value"
            raise RequestError("credentials of a DICOMweb server", rule, remedy=remedy)
        return value


def authorization(options: WebOptions) -> str:
    """The value of the Authorization header, "" for none. Raises `RequestError`, which never shows a secret."""
    token, user, password = options.web_token_variable, options.web_user_variable, options.web_password_variable
    if bool(user) != bool(password) or (token and user):
        rule = "must be web_token_variable alone, or web_user_variable with web_password_variable"
        given = {"web_token_variable": token, "web_user_variable": user, "web_password_variable": password}
        value = ", ".join(name for name, variable in given.items() if variable)
        raise RequestError("credentials of a DICOMweb server", rule, value=value, remedy="Give one of the two")
    if token:
        return f"Bearer {secret(token, 'web_token_variable')}"
    if user:
        pair = (
            f"{secret(user, 'web_user_variable', spaces=True)}:{secret(password, 'web_password_variable', spaces=True)}"
        )
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return ""
